#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod device;
pub mod login;
pub mod registry;
