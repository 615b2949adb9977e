/** The command line around the fake machine: what tests start as a process, to see terminals, pipes and signals as they are. */
import { main } from '../node/main.ts'
import { FakeMachine } from './fake-machine.ts'

await main(process.argv.slice(2), undefined, options => new FakeMachine(options))
