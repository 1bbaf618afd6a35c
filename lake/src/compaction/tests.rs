use std::collections::BTreeMap;

use super::{Eagerness, LARGE, LARGEST, MANY, PartFile, choose};

const HOUR: i64 = 3_600_000;

/// How many files of each size are merged, of a partition last written to at an hour, at the hour 10.
fn merged(sizes: &[i64], hour: i64, eagerness: Eagerness) -> Vec<i64> {
    let files = sizes.iter().enumerate().map(|(number, bytes)| PartFile {
        path: number.to_string(),
        bytes: *bytes,
        written_at: hour * HOUR,
    });
    let partitions = BTreeMap::from([(String::new(), files.collect())]);
    let chosen = choose(&partitions, 10 * HOUR, eagerness).unwrap_or_default();
    chosen.into_iter().map(|file| file.bytes).collect()
}

#[test]
fn many_small_files_are_merged_and_a_large_one_is_left() {
    let few = vec![1_000; MANY - 1];
    assert_eq!(merged(&few, 10, Eagerness::Continuous), [0; 0]);
    let many = vec![1_000; MANY];
    assert_eq!(merged(&many, 10, Eagerness::Continuous), many);
    // What is much larger than all of them is not written again; what is not, is.
    assert_eq!(merged(&[many.clone(), vec![100_000]].concat(), 10, Eagerness::Continuous), many);
    let joined = [many.clone(), vec![15_000]].concat();
    assert_eq!(merged(&joined, 10, Eagerness::Continuous), joined);
    let large = vec![LARGE; MANY];
    assert_eq!(merged(&large, 10, Eagerness::Continuous), [0; 0]);
    let bound = vec![LARGE - 1; MANY];
    assert!(merged(&bound, 10, Eagerness::Thorough).iter().sum::<i64>() <= LARGEST);
}

#[test]
fn a_quiet_partition_is_brought_to_as_few_files_as_can_be() {
    assert_eq!(merged(&[1_000, 900_000], 10, Eagerness::Continuous), [0; 0]);
    assert_eq!(merged(&[1_000, 900_000], 8, Eagerness::Continuous), [1_000, 900_000]);
    assert_eq!(merged(&[1_000, 900_000], 10, Eagerness::Thorough), [1_000, 900_000]);
    assert_eq!(merged(&[1_000], 8, Eagerness::Thorough), [0; 0]);
}

/// However long it goes on, the files of a partition stay few, and a row is written again only a few times.
#[test]
fn files_of_a_partition_that_is_written_to_stay_few() {
    let (mut files, mut written, mut most) = (Vec::new(), 0, 0);
    for number in 0..20_000 {
        files.push(PartFile { path: number.to_string(), bytes: 5_000, written_at: 10 * HOUR });
        while let Some(chosen) =
            choose(&BTreeMap::from([(String::new(), files.clone())]), 10 * HOUR, Eagerness::Continuous)
        {
            let bytes = chosen.iter().map(|file| file.bytes).sum();
            written += bytes;
            files.retain(|file| !chosen.iter().any(|merged| merged.path == file.path));
            files.push(PartFile { path: format!("{number}-merged"), bytes, written_at: 10 * HOUR });
        }
        most = most.max(files.iter().filter(|file| file.bytes < LARGE).count());
    }
    assert!(most <= 3 * MANY, "{most} small files");
    assert!(written <= 8 * 20_000 * 5_000, "each byte was written {} times", written / (20_000 * 5_000));
}
