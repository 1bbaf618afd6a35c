//! Whole-system tests: the real binary, a real `nats-server`, real files.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod alerts;
mod answers;
mod board;
mod chaos;
mod clients;
mod commands;
mod crash;
mod cuts;
mod demo;
mod derived;
mod door;
mod formats;
mod hostile;
mod house;
mod kpis;
mod language;
mod odd_loads;
mod oracle;
mod own_server;
mod pages;
mod readiness;
mod retention;
mod scarcity;
mod search;
mod settings;
mod slt;
mod sql;
mod structure;
mod support;
mod unreadable;
mod verify;
mod volume;
