//! Changes that no request tells: real databases that are written to directly.

mod postgres;
mod postgres_faults;
mod postgres_history;
mod postgres_sql;
mod shadow;
mod shop;
mod watch;
mod webhook;
