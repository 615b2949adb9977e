/** What both descriptor rings of the 82540EM have in common (the manual's "Receive Descriptor Queue Structure"). */

export const descriptorBytes = 16
/** Bus addresses are below 2^52: anything above leads nowhere. */
export const nowhere = 2 ** 52
