"""Fine-tunes, distils and checks the encoder, with checkpoints."""
