"""Caption tables beside a prepared set (``anastyle caption``), and a sheet to look at them."""
