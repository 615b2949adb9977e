/** VGA's registers and the contents that text mode 3 gives them (IBM VGA Technical Reference, "VGA Registers" and "Mode 03h"). */

/** How many there are behind each index register. */
export const counts = { sequencer: 5, crtc: 25, graphics: 9, attribute: 21 } as const

export const sequencer = { mapMask: 2, memoryMode: 4 } as const
export const crtc = {
  horizontalDisplayEnd: 0x01, overflow: 0x07, maximumScanLine: 0x09, startHigh: 0x0c, startLow: 0x0d, cursorHigh: 0x0e, cursorLow: 0x0f,
  protect: 0x11, verticalDisplayEnd: 0x12, offset: 0x13,
} as const
export const graphics = {
  setReset: 0, enableSetReset: 1, colorCompare: 2, rotate: 3, readMap: 4, mode: 5, miscellaneous: 6, colorDontCare: 7, bitMask: 8,
} as const

export interface VgaRegisters {
  misc: number
  sequencer: number[]
  crtc: number[]
  graphics: number[]
  attribute: number[]
}

export const mode3: Readonly<VgaRegisters> = {
  misc: 0x67,
  sequencer: [0x03, 0x00, 0x03, 0x00, 0x02],
  crtc: [
    0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0x00, 0x4f, 0x0d, 0x0e, 0x00, 0x00, 0x00, 0x00, 0x9c, 0x8e, 0x8f, 0x28, 0x1f, 0x96,
    0xb9, 0xa3, 0xff,
  ],
  graphics: [0x00, 0x00, 0x00, 0x00, 0x00, 0x10, 0x0e, 0x0f, 0xff],
  attribute: [0, 1, 2, 3, 4, 5, 0x14, 7, 0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x3d, 0x3e, 0x3f, 0x0c, 0, 0x0f, 8, 0],
}

/** Code page 437: what VGA's own font shows for each byte. */
export const codePage437 =
  ' ☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼ !"#$%&\'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~⌂' +
  'ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■ '
