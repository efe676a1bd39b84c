//! SLURM's notation for nodes and tasks.

/// The first node of a list such as `gpu[003-006,009],cpu1`, with its leading zeros.
pub(crate) fn first_node(list: &str) -> Option<String> {
    let end = list.find([',', '[']).unwrap_or(list.len());
    let (name, rest) = list.split_at(end);
    let Some(rest) = rest.strip_prefix('[') else {
        return (!name.is_empty()).then(|| name.to_owned());
    };
    let (numbers, after) = rest.split_once(']')?;
    let first = numbers.split([',', '-']).next().filter(|first| !first.is_empty())?;
    let suffix = after.split(',').next().unwrap_or_default();
    Some(format!("{name}{first}{suffix}"))
}

/// The number of tasks on node `index` by a list such as `4(x2),3`.
pub(crate) fn tasks_on_node(list: &str, index: usize) -> Option<usize> {
    let mut first = 0;
    for part in list.split(',') {
        let (count, times) = match part.split_once("(x") {
            Some((count, times)) => (count, times.strip_suffix(')')?.parse().ok()?),
            None => (part, 1),
        };
        let next = usize::checked_add(first, times)?;
        if index < next {
            return count.parse().ok();
        }
        first = next;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_node_of_a_list_keeps_its_zeros() {
        for (list, expected) in [
            ("gpu7", Some("gpu7")),
            ("gpu7,gpu9", Some("gpu7")),
            ("gpu[003-006,009],cpu1", Some("gpu003")),
            ("rack[1,3]-ib,x", Some("rack1-ib")),
            ("", None),
            ("gpu[", None),
            ("gpu[]", None),
        ] {
            assert_eq!(first_node(list).as_deref(), expected, "{list}");
        }
    }

    #[test]
    fn tasks_of_a_node_follow_the_repetitions() {
        let found: Vec<_> = (0..4).map(|node| tasks_on_node("4(x2),3", node)).collect();
        assert_eq!(found, [Some(4), Some(4), Some(3), None]);
        assert_eq!(tasks_on_node("4(x", 0), None);
        assert_eq!(tasks_on_node("", 0), None);
        assert_eq!(tasks_on_node(&format!("1,1(x{})", usize::MAX), 1), None);
    }
}
