# Sourced by tests/run and tests/long/*: results, and what test logs say.
#
# A result is a line of file $results, of four fields: pass, fail or skip; the
# section; what; the reason.  $section is the one that results are added to.

record() {
  printf '%s\t%s\t%s\t%s\n' "$1" "$section" "$2" "${3-}" >>"$results"
}

# Counts the results of kind $1, in section $2 only if that is given.
count() {
  awk -F '\t' -v kind="$1" -v section="${2-}" \
    '$1 == kind && (section == "" || $2 == section) { n++ } END { print n + 0 }' \
    "$results"
}

begin_section() {
  section=$1
  printf '\n== %s: %s\n' "$1" "$2"
}

end_section() {
  printf -- '-- %s: %d ok, %d not ok, %d skipped\n' "$section" \
    "$(count pass "$section")" "$(count fail "$section")" \
    "$(count skip "$section")"
}

# Turns a GoogleTest report on standard input into results.
read_gtest_xml() {
  awk -v section="$section" -v target="$1" '
    function text(attribute, line,   s) {
      if (!match(line, " " attribute "=\"[^\"]*\""))
        return ""
      s = substr(line, RSTART + length(attribute) + 3)
      s = substr(s, 1, index(s, "\"") - 1)
      gsub(/&#x0[AD];|&#x09;/, " ", s)
      gsub(/&lt;/, "<", s)
      gsub(/&gt;/, ">", s)
      gsub(/&quot;/, "\"", s)
      gsub(/&apos;/, "\x27", s)
      gsub(/&amp;/, "\\&", s)
      return s
    }
    function finish() {
      if (kind != "")
        printf "%s\t%s\t%s %s\t%s\n", kind, section, target, name, reason
      kind = ""
    }
    /^    <testcase name=/ {
      finish()
      name = text("classname", $0) "." text("name", $0)
      kind = text("status", $0) == "run" ? "pass" : ""
      reason = ""
    }
    /^      <failure message=/ && kind != "" { kind = "fail" }
    /^      <skipped message=/ && kind == "pass" {
      kind = "skip"
      reason = text("message", $0)
    }
    END { finish() }'
}

# Turns `ok - NAME` and `not ok - NAME` lines on standard input into results.
# GoogleTest crashed when its log is read instead of its report: what had
# passed by then still counts.
read_log() {
  awk -v section="$section" -v target="$1" '
    function result(kind, name, reason) {
      printf "%s\t%s\t%s %s\t%s\n", kind, section, target, name, reason
    }
    /^(not )?ok( [0-9]+)? - / {
      gsub(/\t/, " ")
      name = $0
      sub(/^(not )?ok( [0-9]+)? - /, "", name)
      if (match(name, / # [Ss][Kk][Ii][Pp]/))
        result("skip", substr(name, 1, RSTART - 1), \
               substr(name, RSTART + RLENGTH + 1))
      else
        result($0 ~ /^ok/ ? "pass" : "fail", name, "")
    }
    /^\[       OK \] / {
      name = substr($0, 14)
      sub(/ \([0-9]+ ms\)$/, "", name)
      result("pass", name, "")
    }'
}

# Records the results of one test target: its label, its outcome by Bazel, and
# the logs of its shards.
collect_target() {
  local label=$1 outcome=$2 log before after
  shift 2
  before=$(wc -l <"$results")
  for log in "$@"; do
    local xml=${log%test.log}test.xml
    if [ -f "$xml" ] && grep -q '^<testsuites .*name="AllTests"' "$xml"; then
      read_gtest_xml "$label" <"$xml" >>"$results"
    elif [ -f "$log" ]; then
      read_log "$label" <"$log" >>"$results"
    fi
  done
  after=$(tail -n "+$((before + 1))" "$results")
  case $outcome in
  PASSED | FLAKY)
    # A program that prints no cases is one itself.  (Here-strings, since
    # grep -q would end a pipe early.)
    if ! grep -q . <<<"$after" && ! grep -qs AllTests "${@/%test.log/test.xml}"; then
      record pass "$label"
    fi
    ;;
  *)
    if ! grep -q $'^fail\t' <<<"$after"; then
      record fail "$label" "$outcome"
    fi
    ;;
  esac
}

# Says what was skipped and what failed; the last line is the sum.
report() {
  local passed failed
  passed=$(count pass)
  failed=$(count fail)
  echo
  awk -F '\t' '$1 == "skip" { printf "skipped (%s): %s: %s\n", $2, $3, $4 }' \
    "$results"
  awk -F '\t' '$1 == "fail" {
    printf "FAILED (%s): %s%s\n", $2, $3, $4 == "" ? "" : ": " $4
  }' "$results"
  echo "$passed passed, $failed failed"
  [ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
}
