"""Support tickets: sorted by a model where it is sure, by people where it is not, by legal where it must be."""
