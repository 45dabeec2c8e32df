"""Robomimic data: the hdf5 file, action chunks, the LightningDataModule."""
