// Package jpeg decodes JPEG pictures (ITU-T T.81) into RGB samples exactly as libjpeg-turbo does with its default
// settings: the accurate integer inverse DCT ("islow"), interpolated chroma ("fancy upsampling"), colour conversion in
// 16-bit fixed point, and the same answers to damaged data. A network trained on pixels of one decoder sees other
// pixels from another, so equality to the last bit is the point of the package; speed comes second, from table look-up,
// vector instructions where the processor has them, memory that is reused, and decoding no more than the part of the
// picture that is wanted.
//
// Baseline, extended sequential and progressive pictures with Huffman coding of 8 bits are read: grey,
// three components (YCbCr or RGB) and four (CMYK or YCCK), with every ratio of sampling that libjpeg knows. Pictures of
// four components hold inverted ink, as Adobe writes them, and become RGB as Pillow's convert("RGB") makes it.
package jpeg
