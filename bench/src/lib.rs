//! What workloads are measured with: [`yardstick`].

pub mod yardstick;
