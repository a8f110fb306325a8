//go:build !race

package route

const slow = false
