#!/bin/sh
# Before Claude reads a file: if it is a text over 200 kB, say that the rlm server can answer
# questions over all of it. It never refuses the read, and is silent whenever it is not sure.
# It starts as few programs as it can: two for a large text, one for any other file.
LC_ALL=C
export LC_ALL
case ${CLAUDE_PLUGIN_OPTION_PROPOSE:-true} in false | 0 | off | no) exit 0 ;; esac

IFS= read -r input
case $input in
*'"limit"'* | *'"offset"'*) exit 0 ;; # who asks for a part of a file has found it already
*'"file_path":"'*) json=${input#*'"file_path":"'} ;;
*'"file_path": "'*) json=${input#*'"file_path": "'} ;;
*) exit 0 ;;
esac
file=${json%%\"*}
case $file in
*\\*) # quotes and backslashes are escaped
  file=$(printf '%s' "$json" | sed 's/^\(\([^"\\]\|\\.\)*\)".*/\1/; s/\\\(["\\/]\)/\1/g')
  json=$(printf '%s' "$file" | sed 's/["\\]/\\&/g')
  ;;
*) json=$file ;;
esac
case $file in
*.[Pp][Dd][Ff] | *.[Pp][Nn][Gg] | *.[Jj][Pp][Gg] | *.[Jj][Pp][Ee][Gg] | *.[Gg][Ii][Ff] | *.[Ww][Ee][Bb][Pp] | *.ipynb)
  exit 0
  ;;
/* | [A-Za-z]:*) ;;
*) exit 0 ;;
esac
[ -n "$(find "$file" -prune -type f -size +200000c 2>/dev/null)" ] || exit 0
grep -Iq '' "$file" 2>/dev/null || exit 0 # a text has no NUL

printf '{"hookSpecificOutput":{"hookEventName":"PreToolUse","additionalContext":"%s is larger than 200 kB, and reading it shows only a part. For a question over the whole file, use the rlm server instead: rlm_context_add(path=...) stores it without showing it, and rlm_query(question, contexts=[handle]) answers over all of it. If only a known part matters, go on reading."}}\n' "$json"
