"""File formats: from bytes to raw records. What a record means is the business of the layouts."""
