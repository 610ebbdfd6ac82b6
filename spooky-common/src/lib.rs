//! What kernel and user space must agree on.
#![no_std]
