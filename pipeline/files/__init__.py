"""Write files atomically, and read untrusted files safely."""
