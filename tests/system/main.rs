//! Whole-system tests: the real binary, a real `nats-server`, real files.

mod answers;
mod commands;
mod crash;
mod door;
mod house;
mod oracle;
mod support;
