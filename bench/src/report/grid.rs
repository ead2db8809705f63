//! Aligned columns of text for terminals.

/// The first column is never made narrower than this, even if the lines become too long.
const LEAST_FIRST: usize = 16;
/// Spaces between two columns.
const GAP: usize = 2;

/// To which side of its column a cell goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// Lays out `rows` in lines of at most `width` characters. Every row has as many cells as `aligns`;
/// the first column holds names, and is wrapped where there is not enough room.
pub(super) fn grid(rows: &[Vec<String>], aligns: &[Align], width: usize) -> String {
    let mut widths: Vec<usize> = (0..aligns.len())
        .map(|column| {
            rows.iter()
                .filter_map(|row| row.get(column))
                .map(|c| len(c))
                .max()
        })
        .map(Option::unwrap_or_default)
        .collect();
    if let Some((first, others)) = widths.split_first_mut() {
        let taken: usize = others.iter().map(|other| other + GAP).sum();
        *first = (*first).min(width.saturating_sub(taken).max(LEAST_FIRST));
    }
    let mut text = String::new();
    for row in rows {
        for line in row_lines(row, aligns, &widths) {
            text.push_str(line.trim_end());
            text.push('\n');
        }
    }
    text
}

/// One row as lines: all cells in the first, what is left of a long name in those below it.
fn row_lines(row: &[String], aligns: &[Align], widths: &[usize]) -> Vec<String> {
    let (Some(name), Some(&room)) = (row.first(), widths.first()) else {
        return Vec::new();
    };
    let mut lines = wrap(name, room, "  ");
    let first = lines.first_mut();
    if let Some(first) = first {
        pad(first, room);
        for ((cell, align), column) in row.iter().zip(aligns).zip(widths).skip(1) {
            let fill = " ".repeat(column.saturating_sub(len(cell)));
            first.push_str(&" ".repeat(GAP));
            match align {
                Align::Left => first.push_str(&format!("{cell}{fill}")),
                Align::Right => first.push_str(&format!("{fill}{cell}")),
            }
        }
    }
    lines
}

/// Breaks `text` between words into lines of at most `width` characters, all but the first of which
/// begin with `indent`. A word that is too long stays whole. There is always one line.
pub(super) fn wrap(text: &str, width: usize, indent: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut empty = true;
    for word in text.split_whitespace() {
        let used = lines.last().map_or(0, |line| len(line));
        if !empty && used + 1 + len(word) > width {
            lines.push(indent.to_owned());
            empty = true; // No space belongs between the indent and the word.
        }
        if let Some(line) = lines.last_mut() {
            if !empty {
                line.push(' ');
            }
            line.push_str(word);
        }
        empty = false;
    }
    lines
}

/// `text` with what could move a cursor or break a line made visible.
pub(super) fn printable(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            clean.extend(c.escape_default());
        } else {
            clean.push(c);
        }
    }
    clean
}

fn pad(text: &mut String, width: usize) {
    let fill = width.saturating_sub(len(text));
    text.push_str(&" ".repeat(fill));
}

fn len(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[[&str; 3]]) -> Vec<Vec<String>> {
        rows.iter()
            .map(|row| row.iter().map(|cell| (*cell).to_owned()).collect())
            .collect()
    }

    const ALIGNS: [Align; 3] = [Align::Left, Align::Right, Align::Left];

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let text = grid(
            &rows(&[["name", "value", "x"], ["b", "1 µs", "ok"]]),
            &ALIGNS,
            80,
        );
        assert_eq!(text, "name  value  x\nb      1 µs  ok\n");
    }

    #[test]
    fn a_long_name_is_wrapped_and_the_rest_stays_aligned() {
        let long = "memory of a session that has been in grace";
        let text = grid(
            &rows(&[[long, "1 B", "ok"], ["b", "20 B", "ok"]]),
            &ALIGNS,
            30,
        );
        assert_eq!(
            text,
            "memory of a session    1 B  ok\n  that has been in\n  grace\n\
             b                     20 B  ok\n"
        );
    }

    #[test]
    fn a_word_without_a_break_stays_whole() {
        assert_eq!(
            wrap("a/very/long/path b", 6, "> "),
            ["a/very/long/path", "> b"]
        );
        assert_eq!(wrap("", 6, "> "), [""]);
    }

    #[test]
    fn control_characters_become_visible() {
        assert_eq!(printable("a\u{1b}[2Jb\nc µ"), "a\\u{1b}[2Jb\\nc µ");
    }
}
