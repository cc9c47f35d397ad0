//! Newtypes of the Ionian data plane: positions, epochs, identities, and their checked arithmetic.
