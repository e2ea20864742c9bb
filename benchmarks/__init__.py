"""Loads for any DICOMweb server, and comparisons with a peer."""
