// Resources are opened anew each time: the tests share none.
'use strict'

exports.deduped = open => open
