"""What an outgoing connection is made of: how it fails, content encodings, proxies, and which addresses are public."""
