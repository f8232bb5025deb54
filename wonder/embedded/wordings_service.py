"""How people put what billing, accounts and technical support settle: wordings to expand (see `grammar`)."""

from typing import Final

BILLING: Final[tuple[str, ...]] = (
    "[I was|We were|I have been|I got|I've been|I am being] <charged> <twice> [for {order}|for the same thing|for the "
    "{item}|for one order|this month|in {month}|on my card|for my invoice|for my subscription|].",
    "[you|your company|your shop] [<charged> me|<charged> us|<charged> my card|took the money|took {amount}|withdrew "
    "{amount}|debited my account|took money from my bank account] <twice>[ this month| in {month}||].",
    "[double|duplicate|wrong|strange|unknown|unexpected|extra] [charge|payment|debit|booking|withdrawal] [on|from] my "
    "[card|credit card|bank account|statement|account][, please check|, what is this?|, please refund|.].",
    "there [is|was|'s] a [charge|payment|debit|withdrawal|fee|deduction] of {amount} on my [card|bank|credit card] "
    "[statement|account] that I [don't understand|cannot explain|did not authorise|never agreed to|know nothing "
    "about].",
    "[I was|we were|I've been|you have] overcharged [me |]by {amount}[ on <my> <bill>| this month||].",
    "<my> <bill> is [wrong|incorrect|too high|much too high|higher than usual|not correct|not what we agreed|a mess].",
    "the [amount|total|sum|figure|price|VAT|tax] on <my> <bill> is [wrong|incorrect|too high|not right|a mistake|off].",
    "[why is|why was|can you explain why|I don't understand why] <my> <bill> [so high|higher than before|more than "
    "last month|not what I agreed to|{amount}]?",
    "[where|how] [can I find|do I get|can I see|do I download|can I print] [my|an|the] [invoice|invoices|receipt|"
    "billing history|payment history|bills][ for {month}| for {order}| as a pdf||]?",
    "[please|can you please|could you] [send|mail|email|forward|resend] [me|us] [the|an|my|a copy of the] [invoice|"
    "receipt|bill|proof of payment|credit note|VAT invoice][ for {order}| for {month}| for tax purposes| again||].",
    "[I need|we need|our accountant needs|my bookkeeper wants|accounting is asking for] [an invoice|a receipt|a proper "
    "invoice|the bill|a proof of payment|the VAT number on the invoice|a credit note][ for {order}| for {month}||].",
    "[invoice|receipt|bill] [missing|not received|never arrived|needed|wrong] [for {month}|for {order}|].",
    "I <dont> [got|get|received|have|see] [an invoice|a receipt|a bill|the invoice] for {order}.",
    "[I want|I'd like|give me|I demand|I would like|we want|please send] [a refund|my money back|a full refund|my "
    "payment back|the {amount} back|to be refunded|my cash back][ please| for {order}| now||].",
    "[when|where] [will I get|do I get|is|can I expect|will you pay] [my refund|the refund|my money back|my money|the "
    "{amount} you owe me|my payment back]?",
    "[the refund|my refund|the money] [has not arrived|is still missing|hasn't come through|has not reached my bank|"
    "did not come|is not on my account yet|never came].",
    "[still|I am still|we are still] [waiting for|missing|expecting] [my|the|a] [refund|money back|reimbursement|"
    "credit][ of {amount}| from {month}| for weeks||].",
    "[refund|money back|reimbursement] [please|missing|not received|needed|for {order}|request].",
    "[you|your shop] [owe|still owe] [me|us] [{amount}|money|a refund|a credit].",
    "<my> [card|credit card|debit card|payment|bank card|visa|mastercard|PayPal] [was|is|got|keeps being|has been] "
    "[declined|rejected|refused|not accepted|denied][ at checkout| although there is money on it| when I pay|<now>].",
    "[I <cant>|we can't|it is impossible to] pay [my <bill>|with my card|by card|the invoice|online|by PayPal|with my "
    "credit card|by bank transfer]<now>.",
    "[payment|card payment|direct debit|bank transfer] [failed|did not work|doesn't go through|was returned|"
    "error]<now>.",
    "[can I|do you accept|how do I|is it possible to] [pay|settle the bill|pay the invoice] [by card|by bank transfer|"
    "in instalments|in installments|in three parts|later|with PayPal|by direct debit|by cheque|monthly|next month]?",
    "[can I|could I|may I|I would like to] pay [by card|by bank transfer|in instalments|in rates|later|with PayPal|by "
    "direct debit|monthly|next month|half now and half later]?",
    "[how|where] [do|can] I [change|update|replace|enter|remove] my [card|credit card|payment method|bank details|"
    "billing address|payment details|card number|direct debit]?",
    "[please|I want to|I need to] [change|update|correct] [my|our|the] [payment method|credit card|bank details|"
    "billing address|billing details|tax number|VAT number|payment date][ on the invoice||].",
    "[I|we] [already paid|have paid|paid|settled] [this invoice|the bill|<my> <bill>|everything|{amount}] [and still "
    "get reminders|but you say it is open|but got a reminder|so why the reminder|<ago>].",
    "[I got|we received|why do I get|you sent me] [a reminder|a payment reminder|a dunning letter|a late fee|a late "
    "payment fee|a debt notice|an overdue notice][ although I paid| for {order}| of {amount}||].",
    "[you|your company] [keep|are still] [charging|billing|debiting|taking money from] [me|my card|us|my account] "
    "[after I cancelled|although I cancelled|every month|for a service I cancelled|even though I cancelled in "
    "{month}].",
    "[I|we] [cancelled|canceled|ended|stopped] <my> <subscription> [but am|and am|but was|yet I was] still [being|] "
    "[charged|billed][ every month| {amount}||].",
    "[when|on which day|what day] [is|will] [my next payment|the next payment|the invoice|the direct debit|my card "
    "charged] [due|taken|collected|be charged]?",
    "[what|how much] [do I owe|do I still owe|is my balance|is my outstanding balance|is the open amount|is still "
    "unpaid|is due]?",
    "[my|our|the] [balance|outstanding amount|credit|credit note|open amount|payment history] is [wrong|missing|not "
    "correct|not shown|not what I expected].",
    "[the price|my rate|my fee|the monthly fee|the monthly cost|the cost of <my> <subscription>] [went up|has gone up|"
    "increased|was raised|has doubled|rose] [without notice|suddenly|again|by {amount}|and nobody told me].",
    "[what is|why is there|please explain|I don't recognise|I do not know] [this|the|a] [fee|surcharge|extra cost|"
    "charge of {amount}|handling fee|payment of {amount}|service charge|transaction] [on my bill|on my statement|from "
    "you|]?",
    "[the|my] [voucher|discount|coupon|promotion|credit] was not [deducted|subtracted|taken off|applied] [from|on] [my|"
    "the] [invoice|bill].",
    "you [billed|invoiced|charged] [me|us] for [{count}|too many|the wrong number of] <units> [instead of fewer|but we "
    "have less|which is wrong|].",
    "[our|the] [company name|tax id|VAT id|purchase order number|PO number|cost centre] is missing on [the|your] "
    "[invoice|bill].",
    "the [direct debit|standing order|bank transfer|payment] [bounced|failed|was booked twice|went to the wrong "
    "account|was too high|came too early].",
)
ACCOUNTS: Final[tuple[str, ...]] = (
    "I [forgot|have forgotten|lost|can't remember|don't remember|no longer know|mislaid|don't know] <my> <password>[ "
    "and <cant> <login>| and can't get in| and need a new one|, what now?||].",
    "[password|passcode|username|pin|login details] [forgotten|lost|forgot|expired|not accepted|wrong|reset needed|"
    "does not work|unknown][, cannot log in|, please help|, can't sign in|, please reset||].",
    "I <cant> <login>[<now>| with my password| since the weekend| from home||].",
    "[cannot|can't|unable to|not able to|can not] [log in|sign in|login|get in|access my account|get into my "
    "account]<now>.",
    "[logging in|signing in|login|sign-in|log in] [does not work|doesn't work|fails|is impossible|not possible|keeps "
    "failing|never works]<now>.",
    "<howto> [reset|change|recover|set|get back|get|renew] <my> <password>?",
    "<please> [reset|change|recover|send me|renew] <my> <password>.",
    "[it|the page|the site|your system|the form] [says|tells me|keeps saying|claims|thinks] [my password is wrong|my "
    "<password> is incorrect|the user does not exist|there is no such user|my email is unknown|my login is invalid].",
    "<my> <password> [is not accepted|is wrong|does not work|is not recognised|isn't working|is rejected|expired|is "
    "invalid]<now>.",
    "the [password reset|reset|verification|confirmation|activation|sign-up|reset password] [mail|email|link|code|"
    "message] [never arrives|does not come|is not arriving|has expired|does not work|hasn't come|is not in my inbox|is "
    "broken].",
    "I [never got|did not get|didn't receive|don't get|am not receiving|haven't received] [the|a|any] [verification|"
    "confirmation|activation|password reset|security|login|sign-in|reset] [code|mail|email|link|message]<now>.",
    "<my> <account> [is|was|has been|got|seems to be] [locked|blocked|suspended|disabled|deactivated|frozen|closed|"
    "banned][<now>| and I don't know why| after three attempts| for no reason||].",
    "[you|your system|it] [locked|blocked|shut|kicked|threw] me out [of my account|after a wrong password|after too "
    "many attempts|because I mistyped my pin|].",
    "<please> [unlock|unblock|reactivate|reopen|restore|activate] <my> [account|profile|user|login].",
    "I [am|got|was] locked out[ of my account| of my profile| after three wrong attempts| again||].",
    "<please> [delete|close|remove|cancel|deactivate|erase|terminate] <my> [account|profile|user account|user|login].",
    "[I want|we want|I would like|I'd like] [my account|my profile|my user|our account] [deleted|closed|removed|gone|"
    "deactivated].",
    "<howto> [delete|close|deactivate|get rid of|remove|open|create|set up|make|register] [my|an|the] [account|"
    "profile]?",
    "I <cant> [register|sign up|create an account|open an account|make a profile|set up a login]<now>.",
    "<howto> [change|update|correct|edit] [my|the] [email|email address|e-mail|phone number|mobile number|name|surname|"
    "user name|profile picture|date of birth|security question|personal details][ in my profile| on my account||]?",
    "[please|I need to|I want to|can you] [change|update|correct|edit] [my|the|our] [email|email address|phone "
    "number|mobile number|name|surname|user name|personal details] [in my profile|on my account|on my profile|in "
    "the account].",
    "[my|our] [name|surname|email|phone number|birthday|user name] [is wrong|is spelled wrong|is misspelled|has "
    "changed|is outdated|is out of date] [in my profile|on my account|in the account|].",
    "I [have|got] a new [email address|phone number|mobile|phone|surname|email] and [need to update my profile|want to "
    "change it in my account|cannot sign in|the login code goes to the old one|the old one is still in my account].",
    "[somebody|someone|a stranger|a hacker|I think someone|my ex] [hacked|got into|broke into|has taken over|is using|"
    "uses|logged into|has access to|stole|changed the password of] <my> [account|profile|login].",
    "<my> <account> [was|has been|got|seems|might be] [hacked|compromised|hijacked|broken into|taken over].",
    "[there was|I see|I got a mail about|I noticed] [a|an] [strange|unknown|suspicious|foreign] [login|sign-in|device "
    "on my account|access to my account|log in].",
    "the [two-factor|two factor|2fa|two-step|authenticator|security|sms|verification|one-time|sign-in] [code|token|app|"
    "text|codes|pin] [is not accepted|never arrives|does not come|is wrong|goes to my old phone|does not work|expires "
    "too fast].",
    "I [lost|changed|broke|no longer have|replaced] my [phone|mobile|authenticator|security key|old number] and [can't "
    "get the code|cannot sign in|can't log in|need a new login code|the two-factor code is gone].",
    "<howto> [turn on|turn off|set up|disable|enable|move] [two-factor|2fa|two-step login|the authenticator|two factor "
    "authentication|two-step verification]?",
    "<howto> [add|invite|remove|delete|create] [a user|another user|a colleague|my wife|a second user|a new employee|a "
    "team member|an admin|a new login][ to our account| on my account| in the team||]?",
    "<please> [add|invite|give access to|create a login for|set up] [a colleague|{person}|my colleague|my wife|a new "
    "employee|another user|my assistant] [to our account|on my account|as a user|as an admin|in our team].",
    "<please> [remove|delete|revoke|take away|block] [the access of|the login of|the rights of|the user] [{person}|a "
    "former employee|our old secretary|my ex-colleague|an old user].",
    "[{person}|our former colleague|an ex-employee|a person who left|my old boss] [still has access|can still log in|"
    "is still a user|still has a login|still has admin rights][ to our account||].",
    "[{person}|my colleague|our new employee|my son|my wife] [needs|wants|should get|must have] [access|a login|an "
    "account|a user|admin rights|his own login|her own profile][ to our account||].",
    "I [have|seem to have|made|created] two accounts[, please merge them| by mistake| with the same email|, can you "
    "merge them?||].",
    "[merge|combine|join|link] [my|our] [two accounts|accounts|profiles][, please||].",
    "I <cant> [log in|sign in] with [google|facebook|apple|my email|my phone number|my fingerprint|single sign-on|my "
    "old password]<now>.",
    "[what is|where do I see|I need|I forgot] my [user name|username|login name|customer login|user id|account "
    "number]?",
    "<howto> [log out|sign out|log out everywhere|see who is logged in|stay logged in|switch accounts|recover my "
    "account]?",
    "[how do I get|I can't get|help me get|I need to get] back [in|into my account|into my profile|in to my "
    "login]<now>.",
    "[I get|I am|I keep getting] [logged out|signed out|asked for my password|asked to log in] [all the time|every few "
    "minutes|again and again|each time].",
)
TECHNICAL: Final[tuple[str, ...]] = (
    "the <app> [crashes|keeps crashing|crashed|freezes|keeps freezing|hangs|stops responding|closes by itself|shuts "
    "down|is frozen|quits][ when I open it| every time| after the update| on my phone| on my tablet| all the time|"
    "<now>].",
    "<my> <device> [does not work|doesn't work|stopped working|is not working|isn't working|has stopped working|won't "
    "work|no longer works|quit working|is <broken>|is dead|died]<now>.",
    "<my> <device> [won't|will not|doesn't|does not|refuses to|can't] [turn on|start|switch on|power on|boot|charge|"
    "turn off|start up|respond|connect|print|pair|load|heat up|spin|move|wake up]<now>.",
    "[{item}|app|software|website|device|screen|battery|machine|printer] [not working|broken|dead|crashes|keeps "
    "crashing|frozen|won't start|does not start|does not respond|no power|keeps freezing|error]<now>.",
    "I [get|got|keep getting|see|am seeing|always get] [an error|error {number}|an error message|error code {number}|a "
    "blank page|a white screen|a black screen|a blue screen|a strange message|a 404][ when I start it| when I click "
    "save| on the website| in the app| when I open the app| when I export| all the time||].",
    "[error|error code|error message] [{number}|when saving|on start-up|after the update|in the app|on the "
    "{item}]<now>.",
    "the <app> [does not load|won't load|doesn't open|is down|is very slow|is so slow|is slow|shows an error|times out|"
    "is broken|has a bug|is offline|is not loading|won't open|keeps loading]<now>.",
    "[is|are] [your|the] [site|website|app|server|servers|service|system] [down|offline|broken|having problems]<now>?",
    "[since|after|ever since] the [last update|latest update|new version|update|upgrade to the new version|new "
    "release] [nothing works|it is slow|the app crashes|everything is slow|my {item} won't start|it keeps freezing|I "
    "get errors|there is no sound].",
    "<my> <device> [keeps|always|constantly] [disconnecting|losing the connection|turning itself off|restarting|"
    "rebooting|freezing|beeping|switching off|overheating|blinking|crashing|dropping the wifi]<now>.",
    "<my> <device> [does not|won't|can't|doesn't|will not] connect to [the wifi|wi-fi|bluetooth|my phone|the internet|"
    "my laptop|the network|the app|my computer|the wireless]<now>.",
    "[no|bad|weak] [connection|wifi|signal|bluetooth connection|internet|sound|picture|power] [on|from|with] <my> "
    "<device><now>.",
    "[wifi|bluetooth|the connection|the wireless|the internet connection] [drops|does not work|keeps dropping|cuts out|"
    "is unstable|keeps disconnecting|fails] [with the {item}|on my {item}|every few minutes|all the time|].",
    "<howto> [connect|pair|install|set up|update|reset|restart|configure|sync|calibrate|clean|mount|reboot] <my> "
    "<device>[ with my phone| to the wifi| to my laptop||]?",
    "<howto> [install|update|uninstall|reinstall|configure|set up] [the|your] [app|software|driver|firmware|program|"
    "update]?",
    "<howto> [do a factory reset|reset the {item} to factory settings|fix this error|get it to work|turn off the alarm|"
    "stop the beeping|restore a backup|export my files|clear the cache]?",
    "[the|my] [screen|display] [is|stays|goes|turns|remains] [black|blank|dark|white|frozen|blue|dim][<now>| after "
    "charging| when I switch it on||].",
    "the [screen|display|light|lamp|picture] [flickers|blinks|is flickering|keeps blinking|blinks red|has lines|has "
    "stripes].",
    "[the|my] battery [drains|is empty|dies|runs out|lasts only an hour|does not charge|won't charge|is flat|gets hot|"
    "is dead after an hour] [too fast|very fast|after a few minutes|quickly|within an hour|].",
    "[there is|there's|I have|I get] no [sound|picture|power|signal|image|audio|internet|connection|response] [from|on|"
    "with] [the|my] <device><now>.",
    "[the|my] [sound|audio|microphone|mic|camera|speaker|keyboard|button|touchscreen|fan|motor|sensor] [does not work|"
    "doesn't work|stopped working|cuts out|is broken|crackles|is not working|is too quiet|is stuck|does nothing]<now>.",
    "<my> <device> makes [a strange|a loud|a weird|a buzzing|a humming|a clicking|a rattling|an awful|a grinding] "
    "[noise|sound][ when I turn it on| all the time||].",
    "[it|this thing] [won't|doesn't|does not|will not] [turn on|switch on|start|power up|charge|work|respond|boot|"
    "load]<now>.",
    "[it|the {item}|the machine] [just|only|always] [blinks|beeps|hangs|freezes|crashes|turns off|goes dark|stops|"
    "restarts][ after a minute| when I press start| and does nothing||].",
    "the [firmware|software|system|driver] update [fails|failed|stops at {percent} percent|does not install|hangs|"
    "broke my {item}|never finishes|won't install].",
    "[sync|syncing|synchronisation|the export|the import|the backup|the upload|the download|saving|printing|the scan] "
    "[fails|does not work|doesn't work|stopped working|takes for ever|hangs|always fails|ends with an error]<now>.",
    "I <cant> [export|upload|download|save|open|import|print|install|scan] [a file|my files|the report|a document|"
    "anything|the app|photos|my data|the update]<now>.",
    "the [button|link|menu|form|search|page|export button] [does nothing|doesn't work|is broken|does not react|is "
    "greyed out|leads to an error|gives an error][ in the app| on your website||].",
    "[the notifications|the timer|the alarm|dark mode|the remote control|the voice control|the search|the calendar] "
    "[do not work|does not work|stopped working|doesn't work any more] [in the app|on my phone|on the {item}|].",
    "the {item} [is not found|does not show up|is not recognised|isn't detected|is shown as offline|is not listed] [by "
    "the app|by my computer|in the app|on my phone|by my laptop].",
    "<my> <device> [gets|is getting|becomes|runs] [too hot|very hot|hot|slow|very slow|noisy|slower and slower].",
    "[is|are] [the {item}|the app|your software|your app] compatible with [my phone|my laptop|linux|an old tablet|my "
    "computer|windows|android|my router]?",
    "[which|what] [cable|driver|version|adapter|operating system|firmware|charger] do I need [for the {item}|to run "
    "the app|to connect it|to install it]?",
    "[the|your] [api|web interface|plugin|integration|server|webhook] [returns an error|is down|times out|stopped "
    "working|gives error {number}|does not respond]<now>.",
    "my [settings|files|data|photos|recordings|measurements] [are gone|disappeared|were lost|are not saved|vanished] "
    "after [the update|a restart|a crash].",
    "[everything|the whole system|all of it|the app] is [slow|very slow|super slow|lagging|extremely slow|laggy]<now>.",
    "<my> <device> is [<broken>|stuck on the logo|frozen|stuck in a loop|not responding|offline|not charging]<now>.",
)
