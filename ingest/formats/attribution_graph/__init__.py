"""Attribution graphs of transcoder features, read and written."""
