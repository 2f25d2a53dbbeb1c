package message

import (
	"strconv"
	"strings"
	"unicode"
)

// OneLine makes what another package says fit for a message.
func OneLine(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	text = strings.Join(strings.Fields(text), " ")
	const longest = 512
	return Cut(text, longest)
}

// Quote makes a value fit for a message, whatever is in it. Of a long one it shows the begin.
func Quote(value string) string {
	const longest = 64 // Characters, as they are shown.
	end := 0
	for next := range value {
		if len(strconv.QuoteToASCII(value[:next])) > longest+len(`""`) {
			return strconv.QuoteToASCII(value[:end]) + "…"
		}
		end = next
	}
	return strconv.QuoteToASCII(value)
}
