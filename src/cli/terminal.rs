//! The terminal: whether there is one, its size and its screen, and the signals that end a command
//! that would run for ever.

use std::io::{self, IsTerminal as _, Write};

use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use crossterm::style::Print;
use crossterm::terminal::{
    self, BeginSynchronizedUpdate, Clear, ClearType, DisableLineWrap, EnableLineWrap,
    EndSynchronizedUpdate, EnterAlternateScreen, LeaveAlternateScreen,
};
use crossterm::{execute, queue};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// The size of a terminal that does not say it.
const USUAL_SIZE: (u16, u16) = (80, 24);
/// How many keys may wait; further ones are dropped.
const MAX_KEYS: usize = 16;

/// Whether standard output is a terminal.
pub(super) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Whether output may have colors: see <https://no-color.org>.
pub(super) fn has_colors() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    is_terminal() && !is_set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|it| it != "dumb")
}

/// Returns on SIGINT (Ctrl-C) or SIGTERM.
pub(super) async fn stop_signal() -> io::Result<()> {
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

/// Writes to standard output, and does not hold up other futures.
pub(super) async fn write_out(text: String) -> io::Result<()> {
    let written = tokio::task::spawn_blocking(move || {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    });
    written.await.map_err(io::Error::other)?
}

/// The columns that a text takes.
pub(super) fn width(text: &str) -> usize {
    text.width()
}

/// The beginning of a text that takes at most `columns`, with an ellipsis if there is more.
pub(super) fn cut(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut left = columns.saturating_sub(1);
    let fits = |c: &char| {
        let needed = c.width().unwrap_or(0);
        let fits = needed <= left;
        left = left.saturating_sub(needed);
        fits
    };
    let mut short: String = text.chars().take_while(fits).collect();
    short.extend((columns > 0).then_some('…'));
    short
}

/// A key that was pressed, or a change of the size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    Key(char),
    Leave,
    Resized,
}

/// The whole terminal, until it is dropped: then it is as it was.
pub(super) struct Screen {
    keys: mpsc::Receiver<Input>,
    has_keys: bool,
}

impl Screen {
    /// Takes the terminal. Keys are read if standard input is one, too.
    pub(super) fn open() -> io::Result<Self> {
        let (sender, keys) = mpsc::channel(MAX_KEYS);
        let has_keys = io::stdin().is_terminal();
        // Made first, so that it restores what has been changed if a later step fails.
        let screen = Self { keys, has_keys };
        if has_keys {
            terminal::enable_raw_mode()?;
        }
        execute!(io::stdout(), EnterAlternateScreen, DisableLineWrap, Hide)?;
        if has_keys {
            // It ends with the process: nothing wakes it but a key.
            std::thread::spawn(move || read_keys(&sender));
        }
        Ok(screen)
    }

    /// Columns and rows.
    pub(super) fn size() -> (usize, usize) {
        let size = rustix::termios::tcgetwinsize(io::stdout()).ok();
        let (columns, rows) = size
            .map(|size| (size.ws_col, size.ws_row))
            .filter(|(x, y)| *x > 0 && *y > 0)
            .unwrap_or(USUAL_SIZE);
        (columns.into(), rows.into())
    }

    /// Shows these lines, as far as there is room, in place of those before.
    pub(super) fn draw(lines: &[String]) -> io::Result<()> {
        let (columns, rows) = Self::size();
        let mut out = io::stdout().lock();
        queue!(out, BeginSynchronizedUpdate)?;
        for (row, line) in (0_u16..).zip(lines.iter().take(rows)) {
            let line = cut(line, columns);
            queue!(out, MoveTo(0, row), Print(line), Clear(ClearType::UntilNewLine))?;
        }
        if lines.len() < rows {
            let row = u16::try_from(lines.len()).unwrap_or(u16::MAX);
            queue!(out, MoveTo(0, row), Clear(ClearType::FromCursorDown))?;
        }
        queue!(out, EndSynchronizedUpdate)?;
        out.flush()
    }

    /// What comes next from the keyboard; never, if there is none.
    pub(super) async fn input(&mut self) -> Input {
        match self.keys.recv().await {
            Some(input) => input,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Ignore the errors: there may be no terminal any more.
        let _ = execute!(io::stdout(), EnableLineWrap, Show, LeaveAlternateScreen);
        if self.has_keys {
            let _ = terminal::disable_raw_mode();
        }
    }
}

fn read_keys(sender: &mpsc::Sender<Input>) {
    while let Ok(event) = event::read() {
        let input = match event {
            Event::Resize(..) => Input::Resized,
            Event::Key(key) if key.kind == KeyEventKind::Press => match key.code {
                // In raw mode Ctrl-C is a key, and no signal.
                KeyCode::Char('c' | 'd') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                    Input::Leave
                }
                KeyCode::Char('q') | KeyCode::Esc => Input::Leave,
                KeyCode::Char(key) => Input::Key(key),
                _ => continue,
            },
            _ => continue,
        };
        if sender.is_closed() {
            return;
        }
        // Ignore the error: so many keys at once mean nothing.
        let _ = sender.try_send(input);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_by_the_columns_that_it_takes() {
        assert_eq!([cut("abc", 3), cut("abcd", 3), cut("abc", 0)], ["abc", "ab…", ""]);
        assert_eq!(
            [cut("東京都", 6), cut("東京都", 5), cut("東京都", 4)],
            ["東京都", "東京…", "東…"]
        );
        assert_eq!(width(&cut("e\u{301}e\u{301}e\u{301}", 2)), 2);
    }
}
