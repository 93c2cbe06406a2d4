// Package nearest finds the word that somebody most likely meant, for error messages about
// unknown keys, flags and commands.
package nearest

import "strings"

// Word returns the known key that word was most likely meant to be, or "" when
// none is near: one slip in a short word, one for every three letters in a long one.
func Word(word string, known []string) string {
	best, bestDistance := "", len(word)/3+1
	for _, key := range known {
		if d := distance(plainWord(word), plainWord(key)); d < bestDistance {
			best, bestDistance = key, d
		}
	}
	return best
}

// plainWord makes max-disk, maxDisk and max_disk the same word.
func plainWord(s string) string {
	return strings.NewReplacer("_", "", "-", "", " ", "").Replace(strings.ToLower(s))
}

// distance counts the letters to insert, remove, replace or swap with their
// neighbour to make b of a.
func distance(a, b string) int {
	x, y := []rune(a), []rune(b)
	before, last := make([]int, len(y)+1), make([]int, len(y)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(x); i++ {
		row := make([]int, len(y)+1)
		row[0] = i
		for j := 1; j <= len(y); j++ {
			change := 1
			if x[i-1] == y[j-1] {
				change = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+change)
			if i > 1 && j > 1 && x[i-1] == y[j-2] && x[i-2] == y[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(y)]
}
