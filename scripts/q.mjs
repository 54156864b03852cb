// Sets up what is missing, then runs the CLI with the given arguments in the folder that npm was called from.
import { setup } from './lib/setup.mjs';

setup();
process.chdir(process.env.INIT_CWD ?? process.cwd());
await import('../apps/cli/dist/main.js');
