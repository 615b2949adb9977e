/**
 * The intercepts of instructions, by names that both vendors share: each is a bit of the CPU state's `interceptMask`, which a world switch
 * fills in from the guest's controls and clears on the way out. AMD APM vol. 2, "Instruction Intercepts"; Intel SDM vol. 3, "Instructions
 * That Cause VM Exits".
 */

/** In the order of their bits: 32 to a word of the mask. */
export const interceptNames = [
  'cpuid', 'hlt', 'pause', 'rdtsc', 'rdtscp', 'rdpmc', 'rdmsr', 'wrmsr', 'readCr', 'writeCr', 'lmsw', 'smsw', 'clts', 'readDr', 'writeDr',
  'xsetbv', 'invlpg', 'invpcid', 'invd', 'wbinvd', 'monitor', 'mwait', 'sgdt', 'sidt', 'lgdt', 'lidt', 'sldt', 'str', 'lldt', 'ltr',
  'pushf', 'popf', 'iret', 'intn', 'icebp', 'rsm', 'rdrand', 'rdseed', 'xsaves', 'xrstors', 'rdpru',
  'vmrun', 'vmload', 'vmsave', 'vmmcall', 'stgi', 'clgi', 'skinit', 'invlpga',
  'vmcall', 'vmclear', 'vmlaunch', 'vmresume', 'vmptrld', 'vmptrst', 'vmread', 'vmwrite', 'vmxon', 'vmxoff', 'vmfunc', 'invept', 'invvpid',
  'getsec', 'encls', 'umwait', 'tpause', 'pconfig', 'enqcmd', 'loadiwkey', 'wbnoinvd', 'rdpid', 'umonitor',
] as const

export type InterceptName = (typeof interceptNames)[number]

/** Words of `interceptMask`. */
export const interceptWords = 4
if (interceptNames.length > interceptWords * 32) throw new Error('more intercepts than bits of the mask')

export const interceptNumber = Object.fromEntries(interceptNames.map((name, number) => [name, number])) as Record<InterceptName, number>
