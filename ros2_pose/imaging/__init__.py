"""Pictures as cameras and files give them."""
