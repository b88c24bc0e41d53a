// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "query_runs.h"

namespace tercet::benchmarks {

/// The line below a table: how it was measured.
std::string Conditions(const RunOptions& options, const std::vector<Row>& rows);

/// All rows as a Markdown table, as CSV with a head, and as JSON.
std::string ToMarkdown(const std::vector<Row>& rows);
std::string ToCsv(const std::vector<Row>& rows);
std::string ToJson(const std::vector<Row>& rows);

}  // namespace tercet::benchmarks
