"""Which way to transfer a network to these images: what each is expected to reach, and what it would cost here."""
