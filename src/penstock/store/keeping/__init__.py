"""What is kept for a time: answers that are given again, prompts and answers of apps that want them kept."""
