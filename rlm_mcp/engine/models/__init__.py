"""Models behind one interface, and the endpoints that serve them."""
