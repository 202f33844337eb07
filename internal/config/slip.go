// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"strings"
)

// didYouMean ends a message with the word that was probably meant, if there is one.
func didYouMean(word string) string {
	if word == "" {
		return ""
	}
	return fmt.Sprintf(", did you mean %q?", word)
}

// nearest returns the known word that is a slip or two away, or "".
func nearest(word string, known []string) (best string) {
	fewest := 3
	for _, k := range known {
		most := 2
		if min(len(word), len(k)) <= 4 {
			most = 1 // short words are all near each other
		}
		if len(word) > len(k)+most || len(k) > len(word)+most {
			continue
		}
		if n := Slips(strings.ToLower(word), k); n <= most && n < fewest {
			best, fewest = k, n
		}
	}
	return best
}

// Slips returns how many slips of the finger make one word of the other: a letter
// too many, one missing, a wrong one, two swapped.
func Slips(a, b string) int {
	// d[i][j] is the distance of the first i letters of a and the first j of b.
	d := make([][]int, len(a)+1)
	for i := range d {
		d[i] = make([]int, len(b)+1)
		for j := range d[i] {
			if i == 0 || j == 0 {
				d[i][j] = i + j
				continue
			}
			wrong := d[i-1][j-1]
			if a[i-1] != b[j-1] {
				wrong++
			}
			d[i][j] = min(wrong, d[i-1][j]+1, d[i][j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d[i][j] = min(d[i][j], d[i-2][j-2]+1)
			}
		}
	}
	return d[len(a)][len(b)]
}
