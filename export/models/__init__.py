"""The networks of the method, one readable file each."""
