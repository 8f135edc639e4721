//! hugetlb: how many bytes of huge pages, for each size of them.

use oci_spec::runtime::LinuxResources;

use super::controller::{Controller, Names};
use super::folder::{Folder, Setting};
use super::layout::Version;
use super::{CgroupError, Stats};

/// The controller.
pub(super) struct Hugetlb;

impl Controller for Hugetlb {
    fn names(&self) -> Names {
        Names { v1: Some("hugetlb"), v2: Some("hugetlb") }
    }

    fn settings(
        &self,
        version: Version,
        asked: &LinuxResources,
        _: Option<&Folder>,
    ) -> Result<Vec<Setting>, CgroupError> {
        let mut settings = Vec::new();
        for limit in asked.hugepage_limits().iter().flatten() {
            let size = limit.page_size();
            if !is_page_size(size) {
                return Err(CgroupError::Value {
                    field: "linux.resources.hugepageLimits.pageSize",
                    value: size.clone(),
                    reason: "a size is a number and KB, MB or GB, such as 2MB",
                });
            }
            let (end, bytes) = match version {
                Version::V1 => ("limit_in_bytes", limit.limit().to_string()),
                Version::V2 if limit.limit() < 0 => ("max", "max".to_owned()),
                Version::V2 => ("max", limit.limit().to_string()),
            };
            settings.push(Setting::new(format!("hugetlb.{size}.{end}"), &bytes));
            // Newer kernels can also refuse at mmap(2), where a program can still do something, not by SIGBUS at touch.
            settings.push(Setting::new(format!("hugetlb.{size}.rsvd.{end}"), &bytes).optional());
        }
        Ok(settings)
    }

    fn measure(&self, folder: &Folder, stats: &mut Stats) -> Result<(), CgroupError> {
        for size in ["2MB", "1GB"] {
            let file = match folder.version {
                Version::V1 => format!("hugetlb.{size}.usage_in_bytes"),
                Version::V2 => format!("hugetlb.{size}.current"),
            };
            if let Some(usage) = folder.number(&file)? {
                stats.hugetlb.insert(size.to_owned(), usage);
            }
        }
        Ok(())
    }
}

/// Digits, then a unit: the size becomes part of a file's name, so nothing else may be in it.
fn is_page_size(size: &str) -> bool {
    let digits = ["KB", "MB", "GB"].iter().find_map(|unit| size.strip_suffix(unit));
    digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
}
