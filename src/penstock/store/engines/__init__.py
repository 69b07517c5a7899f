"""One module per database product: how it is opened, begun, kept from blocking, and what its errors mean."""
