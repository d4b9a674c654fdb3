package blip

// ImageFLOPs counts the multiply-adds of one picture, two operations each; matrix products only: the encoder, and the
// keys and values that the decoder reads of it.
func (c Config) ImageFLOPs() float64 {
	keysValues := 2 * product(c.Vision.Tokens(), c.Vision.Width, c.Hidden)
	return c.Vision.FLOPs() + float64(c.Layers)*keysValues
}

// TextFLOPs counts those of the decoder over one text of the given length whose head looks at the given number of
// positions: all of them, or one where only the next token counts.
func (c Config) TextFLOPs(length, predicted int) float64 {
	self := 4*product(length, c.Hidden, c.Hidden) + 2*product(length, c.Hidden, length)
	cross := 2*product(length, c.Hidden, c.Hidden) + 2*product(length, c.Hidden, c.Vision.Tokens())
	feedForward := 2 * product(length, c.Hidden, c.Intermediate)
	head := product(predicted, c.Hidden, c.Hidden) + product(predicted, c.Hidden, c.Vocab)
	return float64(c.Layers)*(self+cross+feedForward) + head
}

// product counts the operations of [rows, inner]·[inner, columns].
func product(rows, inner, columns int) float64 {
	return 2 * float64(rows) * float64(inner) * float64(columns)
}
