//! Messages in and out. Shapes only, no rules: what a message means is decided elsewhere.

pub mod fields;
pub mod frames;
mod object;

pub use fields::{FieldError, Fields, ParseError};
pub use frames::ErrorFrame;
