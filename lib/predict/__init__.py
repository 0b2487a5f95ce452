"""What a trained run says of new videos."""
