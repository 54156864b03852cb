import { conformanceOn } from './suite.js';

conformanceOn('scalar', 2);
