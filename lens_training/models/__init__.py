"""The frozen target of a lens; its decoder and encoder are `wonder.lens`, because they are served too."""
