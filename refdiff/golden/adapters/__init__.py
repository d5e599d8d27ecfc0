"""The adapters that come with refdiff, one module each, by whose name `refdiff audit` knows them."""
