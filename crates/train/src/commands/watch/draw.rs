//! What is on the screen: a line for each run, and four charts with the curves of all of them.

use std::time::Duration;

use pfc_cli::units;
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Style, Stylize},
    symbols::Marker,
    text::{Line, Span},
    widgets::{Axis, Block, Chart, Dataset, GraphType, Paragraph},
};

use crate::log::history::{History, Point, thinned};

/// Runs take these in turn.
const COLOURS: [Color; 6] =
    [Color::Cyan, Color::Yellow, Color::Green, Color::Magenta, Color::Red, Color::Blue];

/// What is shown of the runs.
#[derive(Debug, Default)]
pub(super) struct Screen {
    /// Number of the evaluation set that is shown, counted on beyond the last.
    set: usize,
}

/// A run, and how long ago its last figures were written.
pub(super) type Shown<'a> = (&'a History, Option<Duration>);

impl Screen {
    /// Shows the next evaluation set, after the last one the first.
    pub(super) fn next_set(&mut self) {
        self.set += 1;
    }

    pub(super) fn draw(&self, frame: &mut Frame<'_>, runs: &[Shown<'_>]) {
        let lines = Constraint::Length(runs.len() as u16);
        let [head, body, foot] =
            Layout::vertical([lines, Constraint::Fill(1), Constraint::Length(1)])
                .areas(frame.area());
        let set = self.shown_set(runs);
        let rows: Vec<Line<'_>> = (0..).zip(runs).map(|(i, run)| line(i, *run)).collect();
        frame.render_widget(Paragraph::new(rows), head);
        let halves = [Constraint::Fill(1), Constraint::Fill(1)];
        let [upper, lower] = Layout::vertical(halves).areas(body);
        let [loss, accuracy] = Layout::horizontal(halves).areas(upper);
        let [speed, memory] = Layout::horizontal(halves).areas(lower);
        chart(frame, loss, "loss", runs, |run| run.curve(|record| record.loss));
        let title = set.as_ref().map_or("accuracy".to_owned(), |set| format!("accuracy on {set}"));
        chart(frame, accuracy, &title, runs, |run| {
            let set = set.as_deref().unwrap_or_default();
            run.eval_curve(set, |score| Some(score.accuracy))
        });
        chart(frame, speed, "images per second", runs, |run| {
            run.curve(|record| Some(record.images_per_s))
        });
        chart(frame, memory, "peak memory, MiB", runs, |run| {
            run.curve(|record| Some(record.peak_memory_mib))
        });
        frame.render_widget(Paragraph::new("s next evaluation set   q leave").dim(), foot);
    }

    fn shown_set(&self, runs: &[Shown<'_>]) -> Option<String> {
        let mut sets: Vec<&str> = Vec::new();
        for set in runs.iter().flat_map(|(run, _)| run.sets()) {
            if !sets.contains(&set) {
                sets.push(set);
            }
        }
        sets.get(self.set.checked_rem(sets.len())?).map(|set| (*set).to_owned())
    }
}

fn colour(i: usize) -> Color {
    COLOURS[i % COLOURS.len()]
}

/// A run in a line: where it is, and its last figures.
fn line(i: usize, (run, age): Shown<'_>) -> Line<'static> {
    let said = run.last().map_or_else(
        || "no figures yet".to_owned(),
        |last| {
            let of = run.setting("train.epochs").unwrap_or_default();
            let loss = last.loss.map_or("–".to_owned(), |loss| format!("{loss:.3}"));
            let speed = last.images_per_s;
            format!(
                "step {}  epoch {:.2} of {of}  loss {loss}  {speed:.1} img/s",
                units::count(last.step),
                last.epoch
            )
        },
    );
    let age = age.map_or_else(String::new, |age| {
        format!("  figures {} old", units::duration(age.as_secs_f64()))
    });
    let name = printable(&run.name);
    Line::from(vec![
        Span::styled("● ", Style::new().fg(colour(i))),
        Span::from(name).bold(),
        Span::from(format!("  {said}")),
        Span::from(age).dim(),
    ])
}

/// Text without characters that control a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// The curves of all runs, the axes cut to what they hold.
fn chart(
    frame: &mut Frame<'_>,
    area: Rect,
    title: &str,
    runs: &[Shown<'_>],
    curve: impl Fn(&History) -> Vec<Point>,
) {
    let block = Block::bordered().title(printable(title)).border_style(Style::new().dim());
    // More points than there are columns of dots are not told apart.
    let most = 2 * usize::from(area.width).max(1);
    let curves: Vec<Vec<Point>> = runs.iter().map(|(run, _)| thinned(&curve(run), most)).collect();
    let points = || curves.iter().flatten();
    let Some(y) = bounds(points().map(|(_, y)| *y)) else {
        return frame.render_widget(Paragraph::new("no figures yet").dim().block(block), area);
    };
    let x = bounds(points().map(|(x, _)| *x)).unwrap_or([0.0, 1.0]);
    let datasets = (0..).zip(&curves).map(|(i, points)| {
        Dataset::default()
            .marker(Marker::Braille)
            .graph_type(GraphType::Line)
            .style(Style::new().fg(colour(i)))
            .data(points)
    });
    let axis = |bounds: [f64; 2]| Axis::default().bounds(bounds).labels(bounds.map(number));
    let drawn =
        Chart::new(datasets.collect()).block(block).x_axis(axis(x).title("epoch")).y_axis(axis(y));
    frame.render_widget(drawn, area);
}

/// The range of values, widened where it is a point; `None` without a value.
fn bounds(values: impl Iterator<Item = f64>) -> Option<[f64; 2]> {
    let range = values.fold(None, |range: Option<(f64, f64)>, value| {
        let (low, high) = range.unwrap_or((value, value));
        Some((low.min(value), high.max(value)))
    });
    let (low, high) = range?;
    let margin = if low < high { 0.0 } else { (0.1 * high.abs()).max(1e-6) };
    Some([low - margin, high + margin])
}

/// A number beside an axis, with about four digits.
fn number(value: f64) -> String {
    let decimals = match value.abs() {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use ratatui::{Terminal, backend::TestBackend};

    use super::*;
    use crate::log::metrics::Record;

    fn run(name: &str, losses: &[f64]) -> History {
        let lines = losses.iter().enumerate().map(|(i, loss)| {
            format!(
                "{{\"kind\":\"train\",\"step\":{step},\"epoch\":{i},\"loss\":{loss},\"grad_norm\":1,\
                 \"lr\":0.1,\"cavg\":0.1,\"images_per_s\":{speed},\"data_wait\":0,\"head_ms\":1,\
                 \"peak_memory_mib\":512}}",
                step = 1000 * i,
                speed = 100 + i
            )
        });
        let evals = ["lfw", "cfp"].map(|set| {
            format!(
                "{{\"kind\":\"eval\",\"step\":3,\"epoch\":1.5,\"set\":\"{set}\",\"accuracy\":0.9125,\
                 \"std\":null,\"auc\":0.5,\"threshold\":1.5,\"mean_norm\":20.0}}"
            )
        });
        let records = lines.chain(evals);
        History {
            name: name.to_owned(),
            folder: name.to_owned(),
            config_text: String::new(),
            config: "[train]\nepochs = 20\n".parse().unwrap(),
            records: records.map(|line| serde_json::from_str::<Record>(&line).unwrap()).collect(),
            starts: Vec::new(),
        }
    }

    /// The screen as lines of text, and the colours that are on it.
    fn drawn(screen: &Screen, runs: &[Shown<'_>], size: (u16, u16)) -> (String, Vec<Color>) {
        let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
        terminal.draw(|frame| screen.draw(frame, runs)).unwrap();
        let buffer = terminal.backend().buffer();
        let rows = buffer.content().chunks(usize::from(size.0));
        let text: Vec<String> =
            rows.map(|row| row.iter().map(|cell| cell.symbol()).collect()).collect();
        (text.join("\n"), buffer.content().iter().map(|cell| cell.fg).collect())
    }

    #[test]
    fn curves_of_several_runs_lie_over_each_other_in_their_own_colours() {
        let (a, b) = (run("first", &[9.0, 5.0, 3.0]), run("second", &[8.0, 7.0]));
        let runs = [(&a, Some(Duration::from_secs(75))), (&b, None)];
        let (text, colours) = drawn(&Screen::default(), &runs, (100, 30));
        for part in [
            "first  step 2,000  epoch 2.00 of 20  loss 3.000  102.0 img/s  figures 1m15s old",
            "second  step 1,000",
            "accuracy on lfw",
            "images per second",
            "peak memory",
            "9.00",
            "3.00",
        ] {
            assert!(text.contains(part), "`{part}` is not on\n{text}");
        }
        assert!(colours.contains(&COLOURS[0]) && colours.contains(&COLOURS[1]));
        assert!(!colours.contains(&COLOURS[2]));
    }

    #[test]
    fn a_key_shows_the_next_set_and_then_the_first_again() {
        let run = run("a", &[1.0, 2.0]);
        let mut screen = Screen::default();
        let mut titles = Vec::new();
        for _ in 0..3 {
            let (text, _) = drawn(&screen, &[(&run, None)], (80, 24));
            titles.push(["lfw", "cfp"].map(|set| text.contains(&format!("accuracy on {set}"))));
            screen.next_set();
        }
        assert_eq!(titles, [[true, false], [false, true], [true, false]]);
    }

    #[test]
    fn any_screen_can_be_drawn_on_and_any_name_printed() {
        let mut empty = run("evil\u{1b}[2J", &[]);
        empty.records.clear();
        for size in [(1, 1), (10, 3), (300, 90)] {
            let (text, _) = drawn(&Screen::default(), &[(&empty, None)], size);
            assert!(!text.contains('\u{1b}'), "{text}");
        }
        let flat = run("flat", &[2.0, 2.0]);
        let (text, _) = drawn(&Screen::default(), &[(&flat, None)], (80, 24));
        assert!(text.contains("1.80") && text.contains("2.20"), "{text}");
    }
}
