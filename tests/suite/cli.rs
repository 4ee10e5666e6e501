//! What operators use: the commands, the admin API, and the demo's tour.

mod admin_api;
mod commands;
mod demo;
mod first_file;
mod first_mistakes;
mod history;
mod memory;
mod modes;
mod tail;
mod top;
mod warm;
