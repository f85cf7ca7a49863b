package main

import (
	"bytes"
	"fmt"
	"html"
)

const (
	plotWidth  = 760
	labelWidth = 210
	barHeight  = 18
	barGap     = 8
)

// plot draws a bar a side for each table: the median of the rate, and by a line the
// least and the greatest of the rounds.
func plot(tables []table) []byte {
	var body bytes.Buffer
	y := 8
	for i := range tables {
		t := &tables[i]
		y = t.draw(&body, y)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n",
		plotWidth, y, plotWidth, y)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/>`+"\n", plotWidth, y)
	b.Write(body.Bytes())
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// draw draws one table and returns where it ends.
func (t *table) draw(b *bytes.Buffer, y int) int {
	rate := func(x *turn) float64 { return x.perSecond(t.Unit) }
	most := 1.0
	for i := range t.Rows {
		most = max(most, t.Rows[i].each(rate).Most)
	}
	scale := float64(plotWidth-labelWidth-130) / most
	y += 14
	fmt.Fprintf(b, `<text x="8" y="%d" font-weight="bold">%s, %s/s</text>`+"\n", y, html.EscapeString(t.Title), html.EscapeString(t.Unit))
	y += 8
	for i := range t.Rows {
		r := &t.Rows[i]
		s := r.each(rate)
		colour := "#9aa5b1"
		if len(r.Side) >= len("headgate") && r.Side[:len("headgate")] == "headgate" {
			colour = "#2f6fb2"
		}
		middle := y + barHeight/2
		fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="end">%s</text>`, labelWidth-8, middle+4, html.EscapeString(r.Side))
		fmt.Fprintf(b, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`, labelWidth, y, s.Median*scale, barHeight, colour)
		fmt.Fprintf(b, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#222"/>`, labelWidth+s.Least*scale, middle, labelWidth+s.Most*scale, middle)
		fmt.Fprintf(b, `<text x="%.1f" y="%d">%.0f</text>`+"\n", labelWidth+s.Most*scale+6, middle+4, s.Median)
		y += barHeight + barGap
	}
	return y + 8
}
