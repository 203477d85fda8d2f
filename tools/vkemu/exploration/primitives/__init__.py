"""What a program under exploration is built of, besides cells and locks."""
