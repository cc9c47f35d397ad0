//! The control plane's state machine: incarnations, views, placement, ceilings.
