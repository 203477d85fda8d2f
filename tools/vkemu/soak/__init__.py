"""A live host under strain: visitors that come and go, samples of how it does, a page of them."""
